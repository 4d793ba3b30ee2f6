package state

// Reason names what Pins pins for among these effects, with the names that are in the text: SET search_path, temp table "t",
// LISTEN jobs. It is empty if nothing pins. It is for people: a metric has the reason that Pins gives.
func Reason(sql []byte, among Effect) string {
	for _, action := range Parse(sql) {
		if _, pins := Pins(action.Effect & among); pins {
			return describe(action.Effect&among, action.Name)
		}
	}
	return ""
}

// describe names one thing that keeps a session on its server.
func describe(kind Effect, name string) string {
	short, pins := Pins(kind)
	switch {
	case !pins:
		return "unknown state"
	case name == "", kind.Has(AdvisoryLock | Seed | Load):
		return short
	case kind.Has(Temp):
		return `temp table "` + name + `"`
	case kind.Has(HoldCursor):
		return `cursor "` + name + `" WITH HOLD`
	case kind.Has(SequenceRead | Opaque):
		return name + "()"
	}
	return short + " " + name
}
