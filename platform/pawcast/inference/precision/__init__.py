"""bfloat16 in serving: quantized weights, the float32 fallback, and parity with Keras."""
