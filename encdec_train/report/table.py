def print_table(summary):
    for k, v in summary.items():
        print(k, v)
