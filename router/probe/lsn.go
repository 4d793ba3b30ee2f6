package probe

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log. Positions can be compared if they belong to one history: to one timeline, or to one
// that began after both. Zero is no position.
type LSN uint64

// String is PostgreSQL's spelling, such as 16/B374D848.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads PostgreSQL's spelling.
func ParseLSN(text string) (LSN, error) {
	high, low, found := strings.Cut(text, "/")
	if !found {
		return 0, fmt.Errorf("parse LSN: %q has no slash", text)
	}
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN: %w", err)
	}
	l, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN: %w", err)
	}
	return LSN(h<<32 | l), nil
}

// headerless is an insert position without the header of a page on which nothing has been written yet: such a position is
// ahead of all that was ever written, and a standby that has replayed everything would seem to lag behind it for ever. The
// pages of the WAL have 8 kB; their headers have 24 bytes, or 40 on the first page of a segment, and no record is shorter than a header.
func headerless(insert, flushed LSN) LSN {
	const page, short, long = 8192, 24, 40
	if flushed%page == 0 && (insert == flushed+short || insert == flushed+long) {
		return flushed
	}
	return insert
}
