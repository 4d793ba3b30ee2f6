package state

// transaction reads the statements that begin and end transactions and savepoints, behind the verb.
func (r *reader) transaction(verb Verb) clause {
	switch verb {
	case VerbSavepoint:
		return clause{name: r.name()} // the verb says the effect
	case VerbRelease:
		r.acceptNoise("savepoint")
		return clause{name: r.name()}
	case VerbBegin, VerbStart:
		if r.readOnly() {
			return clause{effect: ReadOnlyBegin}
		}
		return clause{}
	}
	if r.is("prepared") {
		return clause{effect: Write} // COMMIT PREPARED, ROLLBACK PREPARED: a transaction that is not the session's
	}
	_ = r.accept("work") || r.accept("transaction")
	if verb == VerbRollback && r.accept("to") {
		r.acceptNoise("savepoint")
		return clause{effect: RollbackTo, name: r.name()}
	}
	effect := Commit
	if verb == VerbRollback || verb == VerbAbort {
		effect = Rollback
	}
	if r.accept("and") && r.is("chain") {
		effect |= Begin
	}
	return clause{effect: effect}
}

// acceptNoise passes a keyword that may stand before a name, unless it is the name.
func (r *reader) acceptNoise(keyword string) {
	before := *r
	if r.accept(keyword) && r.over() {
		*r = before
	}
}

// readOnly tells whether a list of transaction modes says READ ONLY. Where it says both, it is not taken for read-only.
func (r *reader) readOnly() bool {
	only, write := false, false
	for !r.over() {
		read := r.accept("read")
		only = only || read && r.is("only")
		write = write || read && r.is("write")
		if !read {
			r.advance()
		}
	}
	return only && !write
}
