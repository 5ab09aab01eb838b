package resource

import "strings"

// Nearest returns the known name that name was probably meant to be: the first of those that are at most two letters
// added, dropped, replaced or swapped away, whatever their case. "" where none is near.
func Nearest(name string, known []string) string {
	best, bestDistance := "", 3
	word := []rune(strings.ToLower(name))
	for _, k := range known {
		d := distance(word, []rune(strings.ToLower(k)))
		if d < bestDistance && d < len(word) {
			best, bestDistance = k, d
		}
	}
	return best
}

// suggest ends a message about an unknown name.
func suggest(name string, known []string) string {
	if near := Nearest(name, known); near != "" {
		return "; did you mean " + quote(near) + "?"
	}
	return "; known are " + strings.Join(known, ", ")
}

// distance is the optimal string alignment distance, or 3 for words whose lengths already differ by more than 2: the
// name is the file's, and may be very long.
func distance(a, b []rune) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
