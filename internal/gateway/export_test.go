package gateway

// Routes lists the data port's routes, each with how it is metered or why it is free.
func Routes() []string {
	var list []string
	for _, ep := range routes {
		list = append(list, ep.method+" "+ep.path+"\t"+ep.metered+ep.free)
	}
	return list
}

// Waiting counts the requests that wait for a slot of a model.
func (g *Gateway) Waiting(model string) int {
	g.slots.mu.Lock()
	defer g.slots.mu.Unlock()
	if l := g.slots.lines[model]; l != nil {
		return len(l.waiting)
	}
	return 0
}
