"""What a decoder may read of an encoder."""
