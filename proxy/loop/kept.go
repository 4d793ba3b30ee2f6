package loop

// TakeKept returns the kept bytes alone, without looking for new ones, under the same terms as Read. It is for an owner
// that kept them because it had to wait for something else than more bytes.
func (c *Conn) TakeKept() []byte {
	b := c.kept
	if c.loop == nil || len(b) == 0 {
		return nil
	}
	c.kept, c.loop.lent = nil, nil
	if c.loop.big(len(b)) {
		c.loop.lent = b
		return b
	}
	return c.loop.scratch[:copy(c.loop.scratch, b)]
}
