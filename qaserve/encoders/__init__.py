"""Encoders: text in, unit vectors out. Serving needs onnxruntime and tokenizers; torch makes the export, and trains."""
