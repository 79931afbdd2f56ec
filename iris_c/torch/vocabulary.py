# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The iris_c authors
"""An embedding whose table is divided among the ranks by rows (Shoeybi et al., "Megatron-LM",
2019).

Each rank looks up the ids whose rows it has and puts zeros in the place of the others. The sum over
ranks is the whole lookup: each element has one term that is not zero, so no digit is lost. The
gradient of a rank's rows needs no exchange, or with sequence_parallel the gather of its parts.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from iris_c.torch import functions, sequence
from iris_c.torch._groups import Named, context, name_of
from iris_c.torch._parameters import DividedModule
from iris_c.torch._parts import checked_sequence_dim

__all__ = ["VocabParallelEmbedding"]


class VocabParallelEmbedding(DividedModule, nn.Embedding):
    """An embedding whose rows are divided among the ranks.

    Every rank passes the same ids (...); the result (..., embedding_dim) is equal on all ranks.
    With `sequence_parallel` the result is this rank's part of a dimension, the first by default, as
    row-parallel layers have it.

    The table is divided as torch.chunk divides it, so num_embeddings need not be a multiple of
    world_size. It is an nn.Embedding whose num_embeddings and padding_idx are those of the whole
    table; so is the shape of `weight` where it is a DTensor.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Sizes of the whole table.
    padding_idx : int or None
        The id whose row is zero at first and gets no gradient, as torch.nn.Embedding's.
    max_norm, norm_type, scale_grad_by_freq, sparse
        Those of torch.nn.Embedding, here for calls that name them: they must have torch's defaults,
        since each is about all ids of a call and a rank sees some.
    ctx : Context, str, ProcessGroup, DeviceMesh or None
        The ranks. None: the context named 'default'.
    sequence_parallel : bool
        Whether a dimension of the result is divided among the ranks.
    sequence_dim : int
        Which one. Negative ones count from the last, which is that of the features.
    device, dtype
        Device and dtype of the table.

    Raises
    ------
    ValueError
        padding_idx is no row; or an option has no meaning here.
    IndexError
        In a call: an id is not in the table; on GPUs a failed device-side assertion. As torch's.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        ctx: Named = None,
        sequence_parallel: bool = False,
        sequence_dim: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super(nn.Embedding, self).__init__()  # nn.Embedding's would make the whole table
        _refuse_options(max_norm, scale_grad_by_freq, sparse)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = _padding_row(padding_idx, num_embeddings)
        self.max_norm, self.norm_type = None, norm_type
        self.scale_grad_by_freq = self.sparse = False
        self.sequence_parallel = sequence_parallel
        self.sequence_dim = checked_sequence_dim(sequence_dim)
        self.group = name_of(ctx)
        self._divide("weight", (num_embeddings, embedding_dim), 0, device=device, dtype=dtype)
        self.reset_parameters()

    @property
    def rows(self) -> range:
        """The ids whose rows this rank has."""
        part = self._parts["weight"]
        return range(part.start, part.stop)

    def reset_parameters(self) -> None:
        """Draw the table as torch.nn.Embedding does.

        Every rank draws the whole table and keeps its part, so ranks with equal generators get
        parts of one table, which does not depend on the number of ranks.
        """
        whole = nn.Embedding(
            self.num_embeddings,
            self.embedding_dim,
            self.padding_idx,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        self._take("weight", whole.weight)

    @classmethod
    def from_embedding(
        cls,
        embedding: nn.Embedding,
        *,
        ctx: Named = None,
        sequence_parallel: bool = False,
        sequence_dim: int = 0,
    ) -> Self:
        """Return this rank's part of an embedding that every rank has as a whole.

        A table that needs no gradient there needs none here.

        Parameters
        ----------
        embedding : torch.nn.Embedding
            With the options that this class takes.
        ctx : Context, str, ProcessGroup, DeviceMesh or None
            The ranks. None: the context named 'default'.
        sequence_parallel : bool
        sequence_dim : int
        """
        if isinstance(embedding, VocabParallelEmbedding):
            raise TypeError("embedding: expected a whole torch.nn.Embedding, got a rank's part")
        if type(embedding).forward is not nn.Embedding.forward:
            raise TypeError(
                "embedding: expected one that looks up as torch.nn.Embedding does, got "
                f"{type(embedding).__name__}, which has a forward of its own"
            )
        own = cls(
            embedding.num_embeddings,
            embedding.embedding_dim,
            embedding.padding_idx,
            embedding.max_norm,
            embedding.norm_type,
            embedding.scale_grad_by_freq,
            embedding.sparse,
            ctx=ctx,
            sequence_parallel=sequence_parallel,
            sequence_dim=sequence_dim,
            device="meta",
            dtype=embedding.weight.dtype,
        )
        own.to_empty(device=embedding.weight.device)
        own._take("weight", embedding.weight)
        own.weight.requires_grad_(embedding.weight.requires_grad)
        return own.train(embedding.training)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        ctx: Named = None,
        sequence_parallel: bool = False,
        sequence_dim: int = 0,
    ) -> Self:
        """Return this rank's part of a given table, (num_embeddings, embedding_dim)."""
        whole = nn.Embedding.from_pretrained(
            embeddings, freeze, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
        )
        return cls.from_embedding(
            whole, ctx=ctx, sequence_parallel=sequence_parallel, sequence_dim=sequence_dim
        )

    def forward(self, input: Tensor) -> Tensor:
        dim = self.sequence_dim
        least = (dim + 1 if dim >= 0 else -dim - 1) if self.sequence_parallel else 0
        if input.dim() < least:
            raise ValueError(
                f"input: expected {least} or more dimensions with sequence_parallel=True and "
                f"sequence_dim={dim}, got shape {tuple(input.shape)}"
            )
        found = self._found(input)
        if self.sequence_parallel:
            result = sequence.reduce_scatter(found, dim, ctx=self.group)
        else:
            result = functions.all_reduce(found, ctx=self.group)
        return result

    def _found(self, ids: Tensor) -> Tensor:
        """What this rank's rows say of the ids, and zeros of those that it has no rows of."""
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"input: expected int64 or int32, got {ids.dtype}")
        own, weight, padding = self.rows, self._local("weight"), None
        assert weight is not None
        if self.padding_idx is not None and self.padding_idx in own:
            padding = self.padding_idx - own.start
        if len(own) == 0:  # one row of zeros, of which the gradient knows
            weight = functional.pad(weight, (0, 0, 0, 1))
        count = weight.shape[0]
        places = ids - own.start
        missing = (places < 0) | (places >= len(own))
        # Ids of other ranks are spread over the rows: in one place their zeros would be added up
        # one after the other. What is no id at all has a place that is no row, as torch's lookup
        # shall notice on every rank.
        is_id = (ids >= 0) & (ids < self.num_embeddings)
        places = torch.where(is_id, places.remainder(count), count)
        try:
            found = functional.embedding(places, weight, padding)
        except IndexError:
            raise IndexError(
                f"input: expected ids from 0 to {self.num_embeddings - 1}, got ids from "
                f"{int(ids.min())} to {int(ids.max())}"
            ) from None
        return found.masked_fill(missing.unsqueeze(-1), 0.0)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, world_size={context(self.group).world_size}, "
            f"sequence_parallel={self.sequence_parallel}"
        )


def _refuse_options(max_norm: float | None, scale_grad_by_freq: bool, sparse: bool) -> None:
    for name, value, default in (
        ("max_norm", max_norm, None),
        ("scale_grad_by_freq", scale_grad_by_freq, False),
        ("sparse", sparse, False),
    ):
        if value is not None and value != default:
            raise ValueError(
                f"{name}: expected {default}, since the rows are divided among ranks, got {value}"
            )


def _padding_row(padding_idx: int | None, num_embeddings: int) -> int | None:
    """As torch has it: counted from the end where it is negative."""
    if padding_idx is None:
        return None
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise ValueError(
            f"padding_idx: expected None or one of {-num_embeddings} to {num_embeddings - 1}, "
            f"got {padding_idx}"
        )
    return padding_idx % num_embeddings
