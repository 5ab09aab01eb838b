package gateway

// Routes lists the data port's routes, each with how it is metered or why it is free.
func Routes() []string {
	var list []string
	for _, ep := range routes {
		list = append(list, ep.method+" "+ep.path+"\t"+ep.metered+ep.free)
	}
	return list
}
