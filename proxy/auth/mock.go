package auth

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/xdg-go/scram"
)

// What PostgreSQL gives a new SCRAM secret, and so do we for a plain one.
const (
	defaultIterations = 4096
	defaultSalt       = 16 // bytes
)

// account returns what to run user's exchange by, and whether it can succeed: a user's own secret, or a mock for
// a name that is not known or has no secret that the method can use. The mock is made in either case, so that
// its few microseconds tell nothing.
func (p *Policy) account(user string) (a account, genuine bool) {
	mock := p.mock(user)
	if own, known := p.accounts[user]; known && p.usable(own) {
		return own, true
	}
	return mock, false
}

// usable says whether a login by the policy's method can succeed with a.
func (p *Policy) usable(a account) bool {
	k := a.secret.kind()
	return k != kindNone && (p.cfg.Method != SCRAM || a.keys.Iters != 0)
}

// usableAccounts returns the usable accounts, ordered by name.
func (p *Policy) usableAccounts() []account {
	var list []account
	for _, name := range slices.Sorted(maps.Keys(p.accounts)) {
		if a := p.accounts[name]; p.usable(a) {
			list = append(list, a)
		}
	}
	return list
}

// mock makes an account that no proof fits. It has the kind of secret, the iteration count and the length of salt of
// one of the real ones, chosen by the name: under each of them there are unknown names too, and an exchange of one kind costs
// the same for both. The same name gets the same mock as long as the process lives.
func (p *Policy) mock(user string) account {
	model := account{secret: newSecret(secretValue{kind: kindPlain})}
	if n := uint64(len(p.models)); n > 0 {
		model = p.models[binary.BigEndian.Uint64(p.expand("model", user, 8))%n]
	}
	if model.secret.kind() != kindSCRAM {
		text := hex.EncodeToString(p.expand("text", user, 16)) // a password, or the digits of an md5 secret
		model.secret = newSecret(secretValue{kind: model.secret.kind(), text: text})
		model.keys.KeyFactors = p.saltOf(user)
	} else {
		model.keys.Salt = string(p.expand("salt", user, len(model.keys.Salt)))
	}
	model.keys.StoredKey = p.expand("stored key", user, sha256.Size)
	model.keys.ServerKey = p.expand("server key", user, sha256.Size)
	return model
}

// saltOf is the salt that a user with a plain secret has as long as the process lives, and a mock as well.
func (p *Policy) saltOf(user string) scram.KeyFactors {
	return scram.KeyFactors{Salt: string(p.expand("salt", user, defaultSalt)), Iters: defaultIterations}
}

// expand derives length bytes, for one purpose and user, from the process's key.
func (p *Policy) expand(purpose, user string, length int) []byte {
	b, err := hkdf.Expand(sha256.New, p.key, purpose+" of "+user, length)
	if err != nil {
		panic("auth: " + err.Error()) // only a length over 8,160 bytes is refused, and ParseSecret bounds salts far below
	}
	return b
}
