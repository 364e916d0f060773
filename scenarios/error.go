package scenarios

import (
	"fmt"
	"strings"
	"unicode"
)

// maxErrors bounds how many mistakes of one file are told.
const maxErrors = 20

// An Error is a mistake in a scenario and where it is.
type Error struct {
	File    string // "" for a literal; "--set PATH=VALUE" if it came with an override
	Path    string // of the field, as in timeline.faults[0].for
	Line    int    // from 1; 0 if there is no place in a file
	Col     int    // from 1, in characters
	Width   int    // characters that are wrong, at least 1
	Excerpt string // the lines around, with a caret below; may be empty
	Msg     string // what is wrong, and what was expected
	Hint    string // what was probably meant; may be empty
}

// Error prints place, message, suggestion and excerpt.
func (e *Error) Error() string {
	var b strings.Builder
	switch {
	case e.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d  ", e.File, e.Line, e.Col)
	case e.File != "":
		fmt.Fprintf(&b, "%s  ", e.File)
	case e.Path != "":
		fmt.Fprintf(&b, "%s: ", e.Path)
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString(" — " + e.Hint)
	}
	if e.Excerpt != "" {
		b.WriteString("\n" + e.Excerpt)
	}
	return b.String()
}

// Errors are all mistakes of one scenario, in the file's order.
type Errors []*Error

func (e Errors) Error() string {
	var b strings.Builder
	for i, one := range e {
		if i == maxErrors {
			fmt.Fprintf(&b, "\nand %d more", len(e)-i)
			break
		}
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(one.Error())
	}
	return b.String()
}

// Unwrap gives the single mistakes to errors.As.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// excerptWidth is how many characters of a line an excerpt shows.
const excerptWidth = 100

// excerpt prints the line before a place, its line, and a caret.
func excerpt(lines []string, shown func(line int) int, line, col, width int) string {
	if line < 1 || line > len(lines) || strings.TrimSpace(lines[line-1]) == "" {
		return ""
	}
	from := max(0, col-1-excerptWidth*3/4) // of long lines, the part around the caret
	var b strings.Builder
	if line > 1 && shown(line-1) > 0 && strings.TrimSpace(lines[line-2]) != "" {
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("%6d | %s", shown(line-1), window(lines[line-2], from)), " "))
	}
	text := window(lines[line-1], from)
	at := min(col-1-from, len([]rune(text)))
	width = min(max(width, 1), max(1, len([]rune(text))-at))
	fmt.Fprintf(&b, ">%5d | %s\n", shown(line), text)
	fmt.Fprintf(&b, "%s%s", strings.Repeat(" ", 9+max(at, 0)), strings.Repeat("^", width))
	return b.String()
}

// window returns a line's characters from one on, one cell each and none that
// could play with a terminal.
func window(line string, from int) string {
	runes := []rune(line)
	if from >= len(runes) {
		return ""
	}
	runes = runes[from:min(len(runes), from+excerptWidth)]
	for i, r := range runes {
		if r == '\t' {
			runes[i] = ' '
		} else if !unicode.IsPrint(r) {
			runes[i] = '?'
		}
	}
	return string(runes)
}
