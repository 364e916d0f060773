// Package nearest finds the word that somebody probably meant.
//
// It knows letters only; what words there are is the caller's business.
package nearest

// longest is the length beyond which a word is not compared: it is no typo.
const longest = 64

// Word returns the candidate that differs least from word, or "" if none is
// near: at most a third of its letters may be inserted, dropped, replaced or
// swapped with their neighbour (Damerau 1964, restricted), and never all.
func Word(word string, candidates []string) string {
	best, least := "", len(word)
	for _, c := range candidates {
		if len(c) > longest || len(word) > longest {
			continue
		}
		d := distance(word, c)
		if d < least && d <= max(1, min(len(word), len(c))/3+len(c)/8) {
			best, least = c, d
		}
	}
	return best
}

// Hint returns `did you mean "WORD"?`, or "" if no candidate is near.
func Hint(word string, candidates []string) string {
	if w := Word(word, candidates); w != "" {
		return `did you mean "` + w + `"?`
	}
	return ""
}

// distance is the restricted Damerau-Levenshtein distance of two byte strings.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[0] {
		rows[0][j] = j
	}
	before, above := rows[2], rows[0]
	spare := rows[1]
	for i := 1; i <= len(a); i++ {
		row := spare
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		spare, before, above = before, above, row
	}
	return above[len(b)]
}
