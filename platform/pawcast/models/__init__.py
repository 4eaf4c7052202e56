"""The networks, their layers, and pretrained weights. Import `models.build` to build one."""
