"""What decides bfloat16 or float32, quantized weights, the float32 fallback, parity with Keras."""
