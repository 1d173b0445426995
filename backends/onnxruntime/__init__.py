"""ONNX emission, the custom-op library, sessions."""
