"""From a pipe to a log with a time before each line, or as JSON: every line once, whenever this process is killed.

```
 pipe ──splice──► spool ──read, format──► log
```

What a kill leaves, by the step it comes before, and what `recover` makes of it:

1. fill: all is in the pipe. Nothing is to be done.
2. begin: the bytes are in the spool, and the log has none of them. They are formatted as if they had just come.
3. append, or in its midst: the spool says which piece was begun, with which time, and at which length of which file. Formatted
   again the piece is the same; as much of it as the file has grown by is there already, and the rest is appended.
4. advance: as before, and no rest.

A rotation comes between two pieces only, so a begun piece is in one file.
"""

import time
from pathlib import Path

from fleet_agent.supervisor.complaints import complain
from fleet_agent.supervisor.log_file import LogFile
from fleet_agent.supervisor.log_format import Format
from fleet_agent.supervisor.spool import Piece, Spool


class Formatted:
    """One stream. Owns its spool, which is made when the first line comes."""

    def __init__(self, path: Path, log: LogFile, wanted: Format) -> None:
        """`path`: of the spool."""
        self.format = wanted
        self._path = path
        self._log = log
        self._spool: Spool | None = None
        self._troubled = False

    def close(self) -> None:
        """What waits in the spool is for the next supervisor."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def take(self, fifo: int) -> None:
        """Move what is in the pipe; the beginning of a JSON object waits for its end in the spool.

        Where there is no room for a spool, the lines come as they are, and stderr is told.
        """
        if not self._log.opened():
            self._log.discard(fifo)
            return
        try:
            spool = self._open()
            spool.fill(fifo)
        except BlockingIOError:
            return
        except OSError as error:
            self._complain(error)
            self._log.take(fifo)
            return
        self._troubled = False
        self._pour(spool, final=False)

    def recover(self) -> bool:
        """Finish what another supervisor began. To be called before anything is written to the log. True: an unfinished line
        waits. Raises OSError."""
        spool = self._open()
        begun = spool.begun
        if begun is not None:
            piece = self._piece(spool, final=begun.final)
            text = self.format.text(piece, begun.seconds, continues=begun.continues)
            if self._log.opened():
                same = self._log.inode == begun.inode and self._log.size >= begun.length
                # Where somebody took the file away meanwhile, lines rather come twice than never.
                self._log.append(text[self._log.size - begun.length :] if same else text)
            spool.advance(len(piece))
        self._pour(spool, final=False)
        return spool.pending > 0

    def end(self) -> None:
        """Nothing more comes: what is unfinished goes to the log, and the spool away."""
        if self._spool is None and not self._path.exists():
            return
        try:
            spool = self._open()
            self._pour(spool, final=True)
            spool.remove()
        except OSError as error:
            self._complain(error)
        self.close()

    def _open(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self._path)
        return self._spool

    def _pour(self, spool: Spool, *, final: bool) -> None:
        while spool.pending and (piece := self._piece(spool, final=final)):
            if self._log.opened():
                continues, seconds = self._log.in_line(), time.time()
                self._begin(spool, Piece(self._log.inode, self._log.size, seconds, continues, final))
                self._log.append(self.format.text(piece, seconds, continues=continues))
            else:
                self._log.lose(piece)
            spool.advance(len(piece))

    def _piece(self, spool: Spool, *, final: bool) -> bytes:
        data = spool.read(self.format.piece_bytes)
        return data[: self.format.cut(data) or (len(data) if final else 0)]

    def _begin(self, spool: Spool, piece: Piece) -> None:
        try:
            spool.begin(piece)
        except OSError as error:  # a kill in this very moment would write the piece again
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._troubled:
            complain(f"{self._path}: {error.strerror}; lines may lack their format")
        self._troubled = True
