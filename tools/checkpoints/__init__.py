"""Reads checkpoints of ResNets, without the frameworks that wrote them, and writes model files.

A checkpoint passes through parts that know nothing of each other: a reader for each container gives names and tensors
(read.py); names.py gives these the names of the model file; recognise.py finds the network that has them; model_file.py
writes it. Checkpoints come from strangers, so nothing in them is run, and no number in them is believed before it was
held against the file's size.
"""
