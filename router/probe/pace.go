package probe

import "time"

// pace decides how long after the begin of one probe the next one begins. Run's goroutine alone uses it.
type pace struct {
	config  *Config
	alarmed time.Time // of the last alarm, or of the first failure since the server was well; zero: nothing is suspect
}

// alarm makes the server suspect, and tells whether it was already.
func (p *pace) alarm(now time.Time) (already bool) {
	already = p.quick(now)
	p.alarmed = now
	return already
}

// quick tells whether a server that is suspect, or was found unwell, is still probed at a suspect one's pace.
func (p *pace) quick(now time.Time) bool {
	return !p.alarmed.IsZero() && now.Sub(p.alarmed) < p.config.Patience
}

// next takes what a probe has found.
func (p *pace) next(o *Observation) time.Duration {
	switch {
	case o.Reason == OK && o.At.Sub(p.alarmed) >= p.config.Every:
		p.alarmed = time.Time{}
	case o.Reason != OK && p.alarmed.IsZero():
		p.alarmed = o.At
	}
	if p.quick(o.At) {
		return p.config.Suspect
	}
	return p.config.Every
}
