"""Six runs of a small regression, logged by Keras' CSVLogger. In an environment of its own:

pip install 'torch==2.13.0' keras; KERAS_BACKEND=torch python make_keras.py
"""

from pathlib import Path

import keras
import numpy as np

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 30.0)
folder = Path("keras")
folder.mkdir(exist_ok=True)
draws = np.random.default_rng(0)
inputs = draws.standard_normal((224, 4)).astype("float32")
targets = np.sin(inputs.sum(1, keepdims=True))
rows = ["run,learning_rate,hidden"]
for number, rate in enumerate(RATES):
    keras.utils.set_random_seed(number)
    hidden = 8 if number % 2 else 16
    model = keras.Sequential([keras.layers.Dense(hidden, activation="relu"), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse", metrics=["mae"])
    model.fit(
        inputs[:160], targets[:160], batch_size=16, epochs=20, verbose=0,
        validation_data=(inputs[160:], targets[160:]),
        callbacks=[keras.callbacks.CSVLogger(folder / f"run-{number}.csv")],
    )  # fmt: skip
    rows.append(f"run-{number},{rate},{hidden}")
(folder / "points.csv").write_text("\n".join(rows) + "\n")
