"""What `dmkeras.serving.export` is made of.

graph_rules         what an endpoint may be
comparison          served answers against local ones
frozen              variables as constants
precision           bfloat16 or float16 behind float32 answers
classify_signature  tf.Examples in, class names out
"""
