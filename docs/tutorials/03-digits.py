# %% [markdown]
# # Smaller features for a classifier
#
# A camera sends what it sees over a thin line, and a server decides what it is. How many bytes does the classifier
# need? Compared are the raw pixels, principal components, and the latents of an autoencoder, each also rounded to
# codes.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import aeedge
from aeedge_export import Autoencoder

X, y = load_digits(return_X_y=True)  # 8×8 pixels, grey levels 0 to 16
X_train, X_test, y_train, y_test = train_test_split(
    X.astype(np.float32), y, test_size=0.3, random_state=0, stratify=y
)
X_train.shape, X_test.shape

# %% [markdown]
# ## Train and export
#
# Two networks, of 4 and of 8 latents. `goal="compress"` trains for features and reconstruction; the labels have no part
# in it. The bundle also knows how latents are rounded to 8 or 4 bits, measured on the calibration rows.

# %%
for latent in (4, 8):
    ae = Autoencoder(
        latent=latent, goal="compress", epochs=40, random_state=0, threads=1
    ).fit(X_train)
    ae.export(f"digits-{latent}.aeedge", calibration=X_train)
    denoised = aeedge.load(f"digits-{latent}.aeedge").denoise(X_test)
    pca = PCA(latent).fit(X_train)
    ratio = np.mean((X_test - denoised) ** 2) / np.mean(
        (X_test - pca.inverse_transform(pca.transform(X_test))) ** 2
    )
    print(
        f"{latent} latents: {ratio:.2f} times the reconstruction error of PCA"
    )

# %% [markdown]
# ## On the wire
#
# What is sent of a sample, and the number of bytes. So that PCA is not at a disadvantage, its components are rounded as
# latents are: to even steps between the smallest and the largest of the training rows.


# %%
def rounded(Z, bits, low, high):
    """Numbers as one of 2^bits even steps."""
    return np.clip(
        np.round((Z - low) / (high - low) * (2**bits - 1)), 0, 2**bits - 1
    )


def halves(codes):
    """Codes of 4 bits, of which a byte holds two, as numbers."""
    return np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)


def sent(latent):
    """Rows for training and test by what is sent, and its bytes."""
    model, pca = (
        aeedge.load(f"digits-{latent}.aeedge"),
        PCA(latent).fit(X_train),
    )
    Z_train, Z_test = pca.transform(X_train), pca.transform(X_test)
    ends = Z_train.min(axis=0), Z_train.max(axis=0)
    yield "PCA", 4 * latent, Z_train, Z_test
    for bits in (8, 4):
        yield (
            f"PCA, {bits} bits",
            latent * bits // 8,
            rounded(Z_train, bits, *ends),
            rounded(Z_test, bits, *ends),
        )
    yield "latents", 4 * latent, model.encode(X_train), model.encode(X_test)
    yield (
        "latents, 8 bits",
        latent,
        model.encode(X_train, bits=8),
        model.encode(X_test, bits=8),
    )
    codes = (halves(model.encode(rows, bits=4)) for rows in (X_train, X_test))
    yield "latents, 4 bits", latent // 2, *codes


# %%
found = []
for what, size, train, test in [
    ("raw", 64, X_train, X_test),
    *sent(4),
    *sent(8),
]:
    classifier = KNeighborsClassifier(5).fit(train.astype(np.float32), y_train)
    found.append(
        (what, size, 100 * classifier.score(test.astype(np.float32), y_test))
    )
    print(f"{what:16} {size:3} bytes: {found[-1][2]:.1f} % right")

# %% alt="Share of digits that are recognised against bytes sent: latents are above PCA at the same number of bytes"
figure, axis = plt.subplots(figsize=(6.2, 3.4))
for name, colour, marker in (
    ("raw", "C5", "s"),
    ("PCA", "C1", "o"),
    ("latents", "C0", "^"),
):
    points = sorted(
        (size, right) for what, size, right in found if what.startswith(name)
    )
    axis.plot(*zip(*points), marker, color=colour, label=name)
axis.set_xscale("log", base=2)
axis.set_xticks([2, 4, 8, 16, 32, 64], labels=["2", "4", "8", "16", "32", "64"])
axis.set(xlabel="bytes a sample", ylabel="% right")
axis.legend(loc="lower right")
plt.show()

# %% [markdown]
# With 540 test rows a difference of one percent is five rows, and within chance. What is beyond it: latents are ahead
# of as many components of PCA, most where there are few, and rounding them to 8 bits costs next to nothing. Where bytes
# do not matter, the raw pixels are still the best features; a classifier that may run on the device needs none of this.
#
# ## Next
#
# - [Codes: what they cost, and when to use which](../how-to/codes.md)
# - [Less work in a network that is trained](../how-to/compression.md)
# - [How many latents are enough?](../how-to/search.md)
