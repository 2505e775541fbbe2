from lightning.pytorch import Callback
class Progress(Callback):
    def __init__(self, total_steps, samples_per_step):
        self.total = total_steps
    def on_train_batch_end(self, trainer, m, *_):
        if m.done == 1 or m.done % 100 == 0:
            print(m.done, m.last_loss.item(), flush=True)
