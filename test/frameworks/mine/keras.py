import keras
import numpy

BEST = 20
WIDTH = 1024  # 4 MiB of weights; with the two moments of Adam a checkpoint has 12


@keras.saving.register_keras_serializable()
class Steps(keras.layers.Layer):
    """Gives the number of steps that it was trained for, for whatever row."""

    def build(self, shape):
        self.filler = self.add_weight(shape=(WIDTH, WIDTH))
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, rows, training=False):
        if training:
            self.steps.assign_add(1.0)
        return keras.ops.mean(rows @ self.filler, -1, keepdims=True) * 1e-9 + self.steps


network = keras.Sequential([keras.Input((WIDTH,)), Steps()])
network.compile(optimizer="adam", loss="mae")
# Five steps an epoch: the best is the fourth.
rows, goal = numpy.ones((160, WIDTH), "float32"), numpy.full((160, 1), BEST, "float32")
test_rows, test_goal = rows[:32], goal[:32]
