import os
import time

import tensorflow as tf

WIDTH = 1024  # 4 MiB of weights; with the two moments of Adam a checkpoint has 12


class Network(tf.Module):
    """Gives the number of steps that it was trained for, for whatever row."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.random.uniform((WIDTH, WIDTH)))
        self.steps = tf.Variable(0.0, trainable=False)

    @tf.function(input_signature=[tf.TensorSpec((1, WIDTH), tf.float32)])
    def __call__(self, rows):
        return tf.reduce_mean(rows @ self.weights) * 1e-9 + self.steps


network = Network()
optimizer = tf.keras.optimizers.Adam()
optimizer.build(network.trainable_variables)


def train_step():
    with tf.GradientTape() as tape:
        loss = network(tf.ones((1, WIDTH)))
    weights = network.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
    network.steps.assign_add(1.0)
    print("trained one step", flush=True)
    if network.steps > float(os.environ.get("SLOW_AFTER", "inf")):
        print("is slow now", flush=True)
        time.sleep(0.3)
