package state

// sessionCharacteristics stands for the default_transaction settings that SET SESSION CHARACTERISTICS changes.
const sessionCharacteristics = "session characteristics"

// set reads SET, behind the verb.
func (r *reader) set() clause {
	local := r.acceptClause("local")
	if !local && r.acceptClause("session") {
		switch {
		case r.accept("characteristics"):
			r.accept("as")
			r.accept("transaction")
			return clause{effect: Set, setting: sessionCharacteristics, value: r.rest()}
		case r.accept("authorization"):
			return r.assigned(clause{setting: sessionAuthorization, value: r.rest()}, local)
		}
	}
	if !local && r.acceptClause("constraints") {
		return clause{effect: SetLocal, setting: "constraints", value: r.rest()}
	}
	if r.acceptClause("transaction") {
		return clause{effect: SetLocal, setting: "transaction", value: r.rest()}
	}
	c := r.subject()
	c.value = r.rest()
	return r.assigned(c, local)
}

// subject reads what SET sets, to the value.
func (r *reader) subject() clause {
	switch {
	case r.acceptClause("session"):
		r.accept("authorization")
		return clause{setting: sessionAuthorization}
	case r.acceptClause("time"):
		r.accept("zone")
		return clause{setting: timeZone}
	case r.acceptClause("schema"):
		return clause{setting: searchPath}
	case r.acceptClause("names"):
		return clause{setting: clientEncoding}
	case r.acceptClause("role"):
		return clause{setting: role}
	case r.acceptClause("xml"):
		r.accept("option")
		return clause{setting: "xmloption"}
	}
	c := clause{name: r.name()}
	if r.tok == '=' || r.is("to") {
		r.advance()
	}
	return c
}

// assigned gives a clause of SET its effect. A default is where the connection started, so SET is a RESET then.
func (r *reader) assigned(c clause, local bool) clause {
	toDefault := r.is("default") || c.setting == timeZone && r.is("local") || c.setting == clientEncoding && r.over()
	switch {
	case c.setting == "" && c.name == nil, r.over() && !toDefault:
		c.effect = Set | Unknown
	case c.names("seed"):
		c.effect = Seed
	case local && toDefault && !c.ofTransaction():
		c.effect = SetLocal | c.resets()
	case local, c.ofTransaction():
		c.effect = SetLocal
	case toDefault:
		c.effect = c.resets()
	default:
		c.effect = Set
	}
	return c
}

// reset reads RESET, behind the verb.
func (r *reader) reset() clause {
	var c clause
	switch {
	case r.is("all"):
		return clause{effect: ResetAll}
	case r.acceptClause("session"):
		c.setting = sessionAuthorization
	case r.acceptClause("time") && r.accept("zone"):
		c.setting = timeZone
	case r.acceptClause("transaction"):
		return clause{effect: SetLocal, setting: "transaction"}
	default:
		if c.name = r.name(); c.name == nil {
			return clause{effect: Reset | Unknown}
		}
	}
	c.effect = c.resets()
	if c.ofTransaction() {
		c.effect = SetLocal
	}
	return c
}

func (c *clause) resets() Effect {
	if c.names(role) || c.names(sessionAuthorization) {
		return ResetUser
	}
	return Reset
}

// names tells whether the clause is about a setting, given by its canonical name. A quoted name is as good as a bare one:
// PostgreSQL compares settings without case.
func (c *clause) names(setting string) bool {
	if c.setting != "" {
		return c.setting == setting
	}
	bare := c.name
	if len(bare) > 2 && bare[0] == '"' && bare[len(bare)-1] == '"' {
		bare = bare[1 : len(bare)-1]
	}
	return equalFold(bare, setting)
}

// ofTransaction tells whether the setting is one of the transaction's, which end with it even without LOCAL.
func (c *clause) ofTransaction() bool {
	return c.names("transaction_isolation") || c.names("transaction_read_only") || c.names("transaction_deferrable")
}
