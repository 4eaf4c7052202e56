"""A registered model, ready to answer: engine, batching, photos in and predictions out."""
