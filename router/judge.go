package router

import (
	"fmt"
	"slices"

	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
)

// rules are what the operator has decided.
type rules struct {
	writable bool   // a primary whose writes are switched off is none (target_session_attrs=read-write)
	maxLost  uint64 // bytes of WAL that a switch may lose without anybody's confirmation; 0: any
}

// known is what earlier judgements have found out. The zero value: nothing yet.
type known struct {
	system   uint64    // identifier of the cluster
	timeline uint32    // the highest that a primary was accepted with
	primary  string    // name of the last one accepted
	addr     string    // its address: a name may move
	instance string    // its probe.Observation.Instance
	flushed  probe.LSN // up to where it was seen to have WAL on its disk, on that timeline
	serving  bool      // it is accepted now
}

// authority is what somebody says who decides who leads, a Patroni for example.
type authority struct {
	heard  bool   // else it says nothing
	leader string // the name of a target; "": nobody leads
}

// candidate is a target as the judge sees it.
type candidate struct {
	discover.Target
	seen     *probe.Observation
	timeouts int  // probes in a row, the last one included, that had no answer in time
	drained  bool // an operator has taken it out of service, under this name
}

// ruling is a judgement.
type ruling struct {
	primary  int      // place of the one that is accepted; -1: none
	why      string   // there is none
	refusals []string // by candidate, why it is not the primary
	sameAs   []string // by candidate, the name of the one that is the same server; "": none before it
	alarm    string   // "": nothing that people have to look at

	lost        uint64 // if it is a switch: see Switch
	approximate bool
}

// patience is how many probes in a row of an accepted primary may have no answer in time. One may be lost to a machine that is
// busy, and holding everybody's transactions because of it would be worse than waiting for the next one.
const patience = 2

// judge decides which candidate is the primary. It has no memory and no clock, so that the same facts are always judged in the
// same way.
func judge(r rules, k known, a authority, all []candidate) ruling {
	j := ruling{primary: -1, refusals: make([]string, len(all))}
	var fit []int
	for i := range all {
		if j.refusals[i] = unfit(r, k, &all[i]); j.refusals[i] == "" {
			fit = append(fit, i)
		}
	}
	fit = j.oneName(k, all, fit)
	fit = j.oneCluster(k, all, fit)
	fit = j.obey(k, a, all, fit)
	fit = j.newest(k, a, all, fit)
	switch len(fit) {
	case 0:
		j.why = whyNone(k, all, j.refusals)
	case 1:
		j.accept(r, k, a, all, fit[0])
	default:
		j.why = sentenceTwins(all[fit[0]].Name, all[fit[1]].Name, all[fit[0]].seen.Timeline)
		j.alarm = j.why
		for _, i := range fit {
			j.refusals[i] = j.why
		}
	}
	return j
}

// unfit says why a candidate cannot be the primary, whatever the others are.
func unfit(r rules, k known, c *candidate) string {
	o := c.seen
	serves := k.serving && c.Name == k.primary
	switch {
	case c.drained:
		return sentenceDrained(c.Name)
	case o == nil:
		return sentenceUnseen(c.Name)
	case o.Err != nil && serves && bearable(c):
		return ""
	case o.Err != nil:
		return sentenceUnwell(c.Name, o)
	case k.system != 0 && o.SystemID != 0 && o.SystemID != k.system:
		return sentenceForeign(c.Name, o.SystemID, k.system)
	case o.Standby:
		return sentenceStandby(c.Name)
	case r.writable && o.ReadOnly:
		return sentenceReadOnly(c.Name)
	case k.timeline != 0 && o.Timeline != 0 && o.Timeline < k.timeline:
		return sentenceOld(c.Name, o.Timeline, k.timeline)
	case estranged(k, o):
		return sentenceEstranged(c.Name, o.Timeline, k.timeline)
	}
	return ""
}

// bearable tells whether a failed probe says nothing against the primary that serves: the server lives and refuses just the
// probe, or has been silent for a moment only.
func bearable(c *candidate) bool {
	switch c.seen.Reason {
	case probe.Full, probe.AuthFailed, probe.TLSFailed, probe.Failed:
		return true
	case probe.Timeout:
		return c.timeouts < patience
	case probe.OK, probe.Unreachable, probe.Refused, probe.NotPostgres:
	}
	return false
}

// estranged tells whether a server's history is known not to have gone through the highest timeline seen.
func estranged(k known, o *probe.Observation) bool {
	if k.timeline == 0 || o.Timeline <= k.timeline || len(o.History) == 0 {
		return false
	}
	_, came := end(o, k.timeline)
	return !came
}

// end returns where a timeline ended in a server's history.
func end(o *probe.Observation, timeline uint32) (probe.LSN, bool) {
	for _, s := range o.History {
		if s.Timeline == timeline {
			return s.At, true
		}
	}
	return 0, false
}

// oneName leaves one of several names for the same server: the one that serves, or else the first. Names under which a server has
// not been seen again since it was promoted come last. One under which it has been taken out of service stands for all.
func (j *ruling) oneName(k known, all []candidate, fit []int) []int {
	rank := func(i int) int {
		switch {
		case all[i].drained:
			return 0
		case j.refusals[i] != "":
			return 3
		case k.serving && all[i].Name == k.primary:
			return 1
		}
		return 2
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(a) - rank(b) })
	j.sameAs = make([]string, len(all))
	first := make(map[string]string) // names by instance
	for _, i := range order {
		instance := instanceOf(k, &all[i])
		if name, ok := first[instance]; ok && instance != "" {
			j.sameAs[i] = name
		} else {
			first[instance] = all[i].Name
		}
	}
	return j.refuse(fit, func(i int) string {
		if j.sameAs[i] == "" {
			return ""
		}
		return sentenceSame(all[i].Name, j.sameAs[i])
	})
}

// instanceOf returns which running server a candidate is, "" if that is not known; one that serves and could not be probed is the
// one that it was when it was accepted.
func instanceOf(k known, c *candidate) string {
	switch {
	case c.seen == nil:
		return ""
	case c.seen.Err != nil && k.serving && c.Name == k.primary:
		return k.instance
	case c.seen.Err != nil || c.seen.Instance == "":
		return ""
	}
	return fmt.Sprint(c.seen.SystemID, "/", c.seen.Instance)
}

// oneCluster refuses everybody when primaries of several clusters are there and it is not known which one is meant.
func (j *ruling) oneCluster(k known, all []candidate, fit []int) []int {
	if k.system != 0 || len(fit) < 2 {
		return fit
	}
	first := all[fit[0]].seen
	for _, i := range fit[1:] {
		o := all[i].seen
		if o.SystemID == first.SystemID || o.SystemID == 0 || first.SystemID == 0 {
			continue
		}
		j.alarm = sentenceTwoClusters(all[fit[0]].Name, all[i].Name)
		for _, x := range fit {
			j.refusals[x] = j.alarm
		}
		return nil
	}
	return fit
}

// obey applies what an authority says: whom it does not name is not accepted. The primary that serves is not given up for its
// word alone, as it may be wrong: only for a leader that has been seen to be one.
func (j *ruling) obey(k known, a authority, all []candidate, fit []int) []int {
	if !a.heard {
		return fit
	}
	for i := range all { // The name that it is known by there need not be the one that is used here.
		if all[i].Name == a.leader && j.sameAs[i] != "" {
			a.leader = j.sameAs[i]
			break
		}
	}
	leads := false
	for _, i := range fit {
		leads = leads || all[i].Name == a.leader
	}
	var left []int
	for _, i := range fit {
		switch {
		case all[i].Name == a.leader, !leads && k.serving && all[i].Name == k.primary:
			left = append(left, i)
		default:
			j.refusals[i] = sentenceVetoed(all[i].Name, a.leader)
		}
	}
	return left
}

// newest refuses those whose timeline is not the newest, and a newer one that lacks what the primary that serves has.
func (j *ruling) newest(k known, a authority, all []candidate, fit []int) []int {
	if len(fit) < 2 {
		return fit
	}
	for _, serving := range fit {
		if all[serving].Name != k.primary || !k.serving || all[serving].seen.Err != nil {
			continue
		}
		old := all[serving].seen
		fit = j.refuse(fit, func(i int) string {
			o := all[i].seen
			if i == serving || o.Timeline <= old.Timeline || (a.heard && a.leader == all[i].Name) {
				return ""
			}
			lost, _ := lacks(o, old.Timeline, max(old.Flushed, k.flushed))
			if lost == 0 {
				return ""
			}
			j.alarm = sentenceStale(all[i].Name, all[serving].Name, o.Timeline, lost)
			return j.alarm
		})
		break
	}
	top := fit[0]
	for _, i := range fit {
		if timelineOf(k, &all[i]) > timelineOf(k, &all[top]) {
			top = i
		}
	}
	return j.refuse(fit, func(i int) string {
		if timelineOf(k, &all[i]) == timelineOf(k, &all[top]) {
			return ""
		}
		if all[i].seen.ReadOnly {
			return sentenceOld(all[i].Name, timelineOf(k, &all[i]), timelineOf(k, &all[top]))
		}
		j.alarm = sentenceSplit(all[i].Name, timelineOf(k, &all[i]), all[top].Name, timelineOf(k, &all[top]))
		return j.alarm
	})
}

// timelineOf returns a fit candidate's timeline; one that serves and could not be probed has the one it was accepted with.
func timelineOf(k known, c *candidate) uint32 {
	if c.seen.Err != nil {
		return k.timeline
	}
	return c.seen.Timeline
}

// refuse takes out those for whom there is a reason.
func (j *ruling) refuse(fit []int, reason func(i int) string) []int {
	var left []int
	for _, i := range fit {
		if j.refusals[i] = reason(i); j.refusals[i] == "" {
			left = append(left, i)
		}
	}
	return left
}

// accept takes the one that is left, unless that loses more than may be lost without being asked.
func (j *ruling) accept(r rules, k known, a authority, all []candidate, i int) {
	c := &all[i]
	goesOn := k.serving && k.primary == c.Name && c.seen.Timeline == k.timeline
	if c.seen.Err == nil && k.primary != "" && !goesOn {
		j.lost, j.approximate = lacks(c.seen, k.timeline, k.flushed)
	}
	if j.lost > 0 {
		if r.maxLost > 0 && j.lost > r.maxLost && (!a.heard || a.leader != c.Name) {
			j.why = sentenceTooMuch(c.Name, k.primary, j.lost, r.maxLost)
			j.alarm, j.refusals[i] = j.why, j.why
			return
		}
		j.alarm = sentenceLost(c.Name, k.primary, j.lost)
	}
	j.primary = i
}

// lacks returns how much of the WAL up to a position on a timeline a server does not have, and whether that is a guess because
// its history cannot be read: then it has at most what it has written since.
func lacks(o *probe.Observation, timeline uint32, flushed probe.LSN) (lost uint64, guess bool) {
	has := o.Flushed
	if o.Timeline != timeline {
		at, told := end(o, timeline)
		guess = !told
		if told {
			has = at
		}
	}
	if has >= flushed {
		return 0, guess
	}
	return uint64(flushed - has), guess
}

// judgeAlone judges the only server there is, of which nobody has said that it has to be a primary. Whether it can be reached is
// for the dials of clients to find out, who are told more than a probe could say.
func judgeAlone(r rules, k known, a authority, c *candidate) ruling {
	o := c.seen
	if c.drained {
		return judge(r, k, a, []candidate{*c})
	}
	if o == nil || o.Err != nil || o.Standby && k.primary == "" {
		return ruling{refusals: make([]string, 1)}
	}
	if k.system != 0 && o.SystemID != 0 && o.SystemID != k.system { // As after pg_upgrade: there is nothing to choose.
		return ruling{refusals: make([]string, 1), alarm: sentenceForeign(c.Name, o.SystemID, k.system)}
	}
	return judge(r, k, a, []candidate{*c})
}
