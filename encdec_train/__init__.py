"""Config-driven pretraining of encoders and encoder-decoders: a method is a YAML sentence over registered parts."""

__version__ = "0.1.0"
