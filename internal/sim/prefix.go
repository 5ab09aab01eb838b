package sim

import "hash/fnv"

// Sizes of the prefix cache: a block of the prompt is 16 tokens, and so many are kept.
const (
	blockTokens = 16
	blockBytes  = blockTokens * bytesPerToken
	maxBlocks   = 1 << 14
)

// prefixCache is what an engine remembers of prompts: the hash of each block together with all that came before it.
type prefixCache struct {
	known map[uint64]struct{}
	ring  []uint64 // known blocks in the order of their arrival
	next  int      // the oldest, once the ring is full
}

// take returns how many tokens of a prompt are cached, and remembers the prompt. Prompts of different salts share
// nothing. The last block is always computed, as engines do.
func (c *prefixCache) take(salt, prompt string) int64 {
	if c.known == nil {
		c.known = map[uint64]struct{}{}
	}
	h := fnv.New64a()
	h.Write([]byte(salt + "\x00"))
	cached, hit := int64(0), true
	for at := 0; at+blockBytes < len(prompt); at += blockBytes {
		h.Write([]byte(prompt[at : at+blockBytes]))
		block := h.Sum64()
		if _, known := c.known[block]; known {
			if hit {
				cached += blockTokens
			}
			continue
		}
		hit = false
		c.keep(block)
	}
	return cached
}

func (c *prefixCache) keep(block uint64) {
	c.known[block] = struct{}{}
	if len(c.ring) < maxBlocks {
		c.ring = append(c.ring, block)
		return
	}
	delete(c.known, c.ring[c.next])
	c.ring[c.next] = block
	c.next = (c.next + 1) % maxBlocks
}
