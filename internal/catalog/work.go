package catalog

import "talea/internal/usage"

// The reference GPU of work_ms: an H100-SXM that runs one request alone. It computes 989·10¹² operations a second in bf16,
// of which half are reached, and reads 3.35·10¹² bytes a second, of which 80 % are: 494.5 operations and 2.68 bytes in a
// picosecond. Never changed: what was counted by it stands in logs.
//
// A token costs two operations for each parameter that it meets, and to begin a prompt or to write a token these
// parameters are read once, two bytes each. A token that is written also reads what the tokens before it left in memory.

// Work returns what the work of the model's requests is made of; unknown where nobody told how many parameters it has.
func (m *Model) Work() usage.Work {
	active := m.ActiveParameters
	fill(&active, m.Parameters)
	if active == 0 {
		return usage.Work{}
	}
	token := share(active, 4, 989)
	weights := share(active, 50, 67)
	return usage.Work{Fixed: weights, Input: token, Output: token + weights, Context: share(m.KVBytesPerToken, 25, 67)}
}

// share returns n × times / of, rounded up.
func share(n, times, of int64) int64 { return (n*times + of - 1) / of }
