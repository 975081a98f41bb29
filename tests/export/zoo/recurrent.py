"""Networks that go through the steps of a row (n, 8, 6)."""

import torch
from torch import nn

from . import STEPS, Of


class LastState(nn.Module):
    """What a recurrent network knows at the end."""

    def __init__(self, kind, **options):
        super().__init__()
        self.cells = kind(6, 5, batch_first=True, **options)
        self.head = nn.Linear(10 if self.cells.bidirectional else 5, 3)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class Outputs(nn.Module):
    """A code for each step."""

    def __init__(self, kind, **options):
        super().__init__()
        self.cells = kind(6, 4, batch_first=True, **options)

    def forward(self, x):
        return self.cells(x)[0]


class HiddenState(nn.Module):
    """The states of both directions, as `nn.LSTM` returns them."""

    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(6, 4, batch_first=True, bidirectional=True)

    def forward(self, x):
        _, (h, c) = self.cells(x)
        return torch.cat([h.transpose(0, 1).flatten(1), c.transpose(0, 1).flatten(1)], dim=1)


class LearnedStart(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.start = nn.GRU(6, 4, batch_first=True), nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x):
        return self.cells(x, self.start.expand(-1, x.shape[0], -1).contiguous())[1][-1]


class StepByStep(nn.Module):
    """A loop over the last steps, with a state of zeros made for the batch."""

    def __init__(self, kind):
        super().__init__()
        self.cell = kind(6, 4)

    def forward(self, x):
        state = x.new_zeros(x.size(0), 4)
        state = (state, state) if isinstance(self.cell, nn.LSTMCell) else state
        for step in x[:, -3:].unbind(dim=1):
            state = self.cell(step, state)
        return state[0] if isinstance(state, tuple) else state


class Reservoir(nn.Module):
    """Fixed random weights and a leaky state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("given", torch.randn(6, 10) * 0.3)
        self.register_buffer("kept", torch.linalg.qr(torch.randn(10, 10))[0] * 0.9)

    def forward(self, x):
        state = torch.zeros(len(x), 10)
        for i in range(4):
            state = 0.7 * state + 0.3 * torch.tanh(x[:, i] @ self.given + state @ self.kept)
        return state


class Averages(nn.Module):
    """Running means, by cumsum."""

    def forward(self, x):
        return x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1).view(1, -1, 1)


class Lengths(nn.Module):
    """For sequences of several lengths, padded."""

    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(6, 4, batch_first=True)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.cells(packed)[1][0][-1]


def steps_first(net, x):
    return net.cells(x.transpose(0, 1))[0][-1]


RIGHT = {
    "LSTM, last": (lambda: LastState(nn.LSTM), STEPS),
    "LSTM, two layers": (lambda: LastState(nn.LSTM, num_layers=2, dropout=0.3), STEPS),
    "LSTM, both directions": (lambda: LastState(nn.LSTM, bidirectional=True), STEPS),
    "LSTM, states": (HiddenState, STEPS),
    "LSTM, steps first": (lambda: Of(steps_first, cells=nn.LSTM(6, 4)), STEPS),
    "LSTM, a code for each step": (lambda: Outputs(nn.LSTM), STEPS),
    "GRU, last": (lambda: LastState(nn.GRU), STEPS),
    "GRU, both directions, each step": (lambda: Outputs(nn.GRU, bidirectional=True), STEPS),
    "GRU, learned start": (LearnedStart, STEPS),
    "RNN": (lambda: LastState(nn.RNN, nonlinearity="relu"), STEPS),
    "LSTM cell in a loop": (lambda: StepByStep(nn.LSTMCell), STEPS),
    "GRU cell in a loop": (lambda: StepByStep(nn.GRUCell), STEPS),
    "reservoir": (Reservoir, STEPS),
    "cumsum": (Averages, STEPS),
}

REFUSED = {
    "LSTM as it is": (
        lambda: nn.LSTM(6, 4, batch_first=True),
        STEPS,
        r"expected one tensor, got tuple .*an LSTM: its output",
    ),
    "across the rows": (lambda: Of(lambda net, x: net.cells(x)[0], cells=nn.GRU(6, 4)), STEPS, "batch|other rows"),
    "steps and lengths": (Lengths, STEPS, "forward takes x and lengths; bind the others"),
}
