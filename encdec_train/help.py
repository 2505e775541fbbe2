"""What `encdec-train --help` prints. No imports, so that it costs nothing."""

HELP = """\
encdec-train: pretrain encoders and encoder-decoders. A method is a YAML sentence over registered parts.

Commands
  encdec-train +recipe=NAME [key=value ...]   train; ends with a table of probes, and a run directory
  encdec-train -m +recipe=A,B seed=0,1        train every combination, one after the other
  encdec-train list [recipes|encoders|...]    what exists, one line each                          [--json]
  encdec-train show +recipe=NAME [...]        parts, shapes, parameters, data; no training        [--json]
  encdec-train resume RUN                     continue exactly where a run stopped
  encdec-train probe RUN [probe=NAME]         evaluate a finished run
  encdec-train report RUN                     write the run's report.html again

Scales
  scale=demo    (default) tiny parts, data that ships with the package, about a minute on two CPU cores
  scale=rung    a small public data set, at most an hour on one GPU
  scale=paper   the published model, data and schedule

Overrides
  encoder=vit_base          choose another word, or another registered part, for a noun
  encoder.depth=6           set a field; short for encoder.main.depth=6
  data.path=PATH            your own data: a folder of pictures or sounds, parquet, arrow, csv, json or text
                            files, or the name of a hub data set; data=images, texts or sounds if the recipe's
                            data is of another shape
  stage.main.steps=1000     how long; trainer.max_steps=5 caps every stage
  optim.lr=1e-3  seed=1  loader.batch=64  loader.workers=4
  logger=wandb              also log to Weights & Biases (off unless asked for)

Options
  --help, -h    this text                     --info defaults   where every value comes from (Hydra)
  --debug       the traceback of an error     --cfg job         the composed configuration (Hydra)

Examples
  encdec-train +recipe=mae_vit
  encdec-train +recipe=mae_vit scale=rung data.path=photos/ data.size=64
  encdec-train +recipe=bert data=texts data.path=notes/ seed=1
  encdec-train list encoders
"""
