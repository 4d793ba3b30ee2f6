package cancel

import (
	"encoding/binary"
	"errors"
)

// Restore registers a key that another process has given out, for a client that has moved here. It refuses what is no key
// of a Registry, and one that somebody has.
func (r *Registry) Restore(pid uint32, secret []byte, t Target) (Key, error) {
	key := Key{}
	switch len(secret) {
	case shortSecret:
		key.short = uint64(pid)<<32 | uint64(binary.BigEndian.Uint32(secret))
	case longSecret:
		key.long = string(binary.BigEndian.AppendUint32(nil, pid)) + string(secret)
	default:
		return Key{}, errors.New("restore cancel key: its secret has a wrong length")
	}
	if !r.add(key, t) {
		return Key{}, errors.New("restore cancel key: it is taken")
	}
	return key, nil
}
