package session

import "pgsidecar/proxy/state"

// causes are the texts, as far as they are kept, that may have left something on a server since it was linked: for whoever
// wants to know which statement has pinned the session. Zero value: none. They belong to the server's loop.
type causes struct {
	list  []cause // one for each set of effects, the latest; never shortened but with its capacity kept
	times int
}

// cause is one text.
type cause struct {
	effects state.Effect // those of leaving
	text    []byte       // its beginning
	when    int          // by the count of causes
}

const (
	// leaving are the effects of texts that are noted.
	leaving = audited | state.SequenceRead | forEver | state.Suspect | state.Unseen |
		state.DDL // where search_path begins with pg_temp

	maxCauses    = 16
	maxCauseText = 2 << 10 // bytes
)

// noteCause takes note of a text with these effects.
func noteCause[S string | []byte](c *causes, effects state.Effect, text S) {
	effects &= leaving
	if effects == 0 {
		return
	}
	c.times++
	if len(text) > maxCauseText {
		text = text[:maxCauseText]
	}
	for i := range c.list {
		if one := &c.list[i]; one.effects == effects {
			one.text, one.when = append(one.text[:0], text...), c.times
			return
		}
	}
	if len(c.list) == maxCauses {
		return
	}
	if len(c.list) < cap(c.list) {
		c.list = c.list[:len(c.list)+1] // with the buffer of an earlier one
	} else {
		c.list = append(c.list, cause{})
	}
	one := &c.list[len(c.list)-1]
	one.effects, one.text, one.when = effects, append(one.text[:0], text...), c.times
}

// forget is for a server that is linked to nobody.
func (c *causes) forget() { c.list = c.list[:0] }

// of returns the text that has most likely had an effect: the latest that says so, else the latest that may have done it
// without saying so, else the latest of all; nil if there is none.
func (c *causes) of(why state.Effect) []byte {
	for _, effects := range []state.Effect{why, state.Suspect, leaving} {
		var best *cause
		for i := range c.list {
			if one := &c.list[i]; one.effects.Has(effects) && (best == nil || one.when > best.when) {
				best = one
			}
		}
		if best != nil {
			return best.text
		}
	}
	return nil
}
