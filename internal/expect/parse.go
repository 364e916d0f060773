package expect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"brownout/internal/nearest"
	"brownout/internal/plan"
	"brownout/internal/quantity"
)

// MaxLength bounds a sentence, in bytes.
const MaxLength = 500

// An Error is a mistake in a sentence.
type Error struct {
	Text  string // the sentence
	Start int    // of the word that is wrong, in characters from the sentence's first
	Width int    // of that word, in characters; at least 1
	Msg   string // what is wrong and what was expected
	Hint  string // what was probably meant; may be empty
}

// Error prints the sentence with a caret under the word.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s\n  %s\n  %s%s", e.Msg, e.Text, strings.Repeat(" ", e.Start), strings.Repeat("^", e.Width))
	if e.Hint != "" {
		s += " " + e.Hint
	}
	return s
}

// Parse reads one sentence. Its errors are all [*Error].
func Parse(text string) (Sentence, error) {
	p := &parser{text: text}
	if err := p.scan(); err != nil {
		return Sentence{}, err
	}
	return p.sentence()
}

// A word is a token and where it stands, in characters.
type word struct {
	text       string
	start, end int
}

type parser struct {
	text  string
	words []word
	next  int
}

// scan cuts the text into words; parentheses and comparisons are words of their own.
func (p *parser) scan() error {
	if len(p.text) > MaxLength {
		return &Error{Text: p.text[:20] + "...", Width: 1, Msg: fmt.Sprintf("a sentence of %d bytes; at most %d", len(p.text), MaxLength)}
	}
	if !utf8.ValidString(p.text) {
		return &Error{Text: strings.ToValidUTF8(p.text, "?"), Width: 1, Msg: "not valid UTF-8"}
	}
	runes := []rune(p.text)
	for i := 0; i < len(runes); {
		start := i
		switch r := runes[i]; {
		case r == ' ':
			i++
			continue
		case unicode.IsControl(r):
			return &Error{Text: p.text, Start: i, Width: 1, Msg: fmt.Sprintf("unexpected character %q", r)}
		case strings.ContainsRune("(),", r):
			i++
		case isCompare(r):
			for i < len(runes) && isCompare(runes[i]) {
				i++
			}
		default:
			for i < len(runes) && !strings.ContainsRune(" (),", runes[i]) && !isCompare(runes[i]) && !unicode.IsControl(runes[i]) {
				i++
			}
		}
		p.words = append(p.words, word{string(runes[start:i]), start, i})
	}
	return nil
}

func isCompare(r rune) bool { return strings.ContainsRune("<>=!≤≥", r) }

// peek returns the next word; at the end an empty one behind the last.
func (p *parser) peek() word {
	if p.next < len(p.words) {
		return p.words[p.next]
	}
	end := utf8.RuneCountInString(strings.TrimRight(p.text, " "))
	return word{"", end, end + 1}
}

func (p *parser) take() word { w := p.peek(); p.next++; return w }

// accept takes the next word if it is one of words.
func (p *parser) accept(words ...string) bool {
	if w := p.peek(); w.text != "" && slices.Contains(words, w.text) {
		p.next++
		return true
	}
	return false
}

// wrong makes the error for w where one of words was expected. known are more
// words to suggest from.
func (p *parser) wrong(w word, expected string, known ...string) error {
	e := &Error{Text: p.text, Start: w.start, Width: max(1, w.end-w.start)}
	if w.text == "" {
		e.Msg = "the sentence ends here; expected " + expected
		return e
	}
	e.Msg = fmt.Sprintf("unexpected %q; expected %s", w.text, expected)
	e.Hint = nearest.Hint(strings.ToLower(w.text), known)
	return e
}

// invalid makes the error for w, which was understood and is wrong.
func (p *parser) invalid(from, to word, msg string) error {
	return &Error{Text: p.text, Start: from.start, Width: max(1, to.end-from.start), Msg: msg}
}

func (p *parser) sentence() (Sentence, error) {
	starts := slices.Concat([]string{"linearizable", "no acknowledged write is lost", "diagnosis", "leader_changes", "time_to_recover", "service", "response"}, quantiles, counters)
	first := p.peek()
	var s Sentence
	var err error
	switch {
	case first.text == "linearizable":
		p.take()
		s.Check = Linearizable
	case first.text == "no":
		s.Check, err = Durable, p.phrase("no", "acknowledged", "write", "is", "lost")
	case first.text == "diagnosis":
		s, err = p.diagnosis()
	case first.text == "":
		return s, p.wrong(first, oneOf(starts))
	case slices.Contains(starts, first.text):
		s, err = p.compare()
	default:
		return s, p.wrong(first, oneOf(starts), starts...)
	}
	if err != nil {
		return Sentence{}, err
	}
	if w := p.peek(); w.text != "" {
		return Sentence{}, p.wrong(w, "the end of the sentence")
	}
	return s, nil
}

func (p *parser) phrase(words ...string) error {
	for _, want := range words {
		if w := p.peek(); !p.accept(want) {
			return p.wrong(w, fmt.Sprintf("%q, as in %q", want, strings.Join(words, " ")), want)
		}
	}
	return nil
}

// diagnosis = "diagnosis" [period] "is" ( culprit [ "@" role|node ] | "none" ).
func (p *parser) diagnosis() (Sentence, error) {
	s := Sentence{Check: Diagnosis}
	p.take()
	period, err := p.period("is")
	if err != nil {
		return s, err
	}
	s.Period = period
	if w := p.peek(); !p.accept("is", "=") {
		return s, p.wrong(w, "during, in or is", "during", "in", "is")
	}
	w := p.take()
	culprit, at, found := strings.Cut(w.text, "@")
	if !slices.Contains(culprits, culprit) {
		return s, p.wrong(w, "a culprit ("+strings.Join(culprits, ", ")+"), as in disk@follower", append(culprits, "disk@leader", "disk@follower")...)
	}
	if found && culprit == "none" {
		return s, p.invalid(w, w, "none has no place")
	}
	if found && !slices.Contains(roles, at) && !isNode(at) {
		return s, p.wrong(w, "leader, follower or a node behind @, as in disk@leader", culprit+"@leader", culprit+"@follower")
	}
	s.Culprit, s.At = culprit, at
	return s, nil
}

func isNode(s string) bool { return isNumbered(s, 'n') }

// isNumbered reports whether s is a letter and a number from 1 up.
func isNumbered(s string, letter byte) bool {
	if len(s) < 2 || len(s) > 5 || s[0] != letter || s[1] == '0' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// compare = metric [period] cmp limit.
func (p *parser) compare() (Sentence, error) {
	s := Sentence{Check: Compare}
	var err error
	if s.Metric, err = p.metric(); err != nil {
		return s, err
	}
	if s.Metric.Name == "time_to_recover" {
		if w := p.peek(); p.accept("during", "in") {
			return s, p.invalid(w, w, "time_to_recover counts from the heal; it takes no period")
		}
	} else if s.Period, err = p.period(compares...); err != nil {
		return s, err
	}
	w := p.take()
	switch w.text {
	case "<", "<=", ">", ">=", "=":
		s.Cmp = w.text
	case "==", "is":
		s.Cmp = "="
	case "≤":
		s.Cmp = "<="
	case "≥":
		s.Cmp = ">="
	default:
		return s, p.wrong(w, "a comparison (<, <=, >, >=, =)")
	}
	from := p.peek()
	if s.Limit, err = p.limit(s.Metric); err != nil {
		return s, err
	}
	if s.Cmp == "=" && s.Limit.Form != Count && s.Limit.Form != Percent {
		return s, p.invalid(w, w, fmt.Sprintf("%s is never exactly %s; compare with < or >", s.Metric.Name, p.textFrom(from)))
	}
	return s, nil
}

func (p *parser) textFrom(w word) string { return string([]rune(p.text)[w.start:]) }

// metric = [ "service" | "response" ] quantile [ "(" op ")" ] { "of" ( "service" | "response" | shard ) }
// | counter [ "(" op ")" ] [ "of" shard ] | "leader_changes" [ "of" shard ] | "time_to_recover" "(" fault ")".
// shard = "shard" number.
func (p *parser) metric() (Metric, error) {
	var m Metric
	clock := p.peek()
	timed := p.accept("service", "response")
	m.Service = timed && clock.text == "service"
	w := p.take()
	m.Name = w.text
	_, isQuantile := m.quantile()
	switch {
	case timed && !isQuantile:
		return m, p.wrong(w, oneOf(quantiles), quantiles...)
	case m.Name == "leader_changes":
		return m, p.of(&m, true)
	case m.Name == "time_to_recover":
		name, err := p.argument("a fault's kind or id, as in time_to_recover(disk.delay)", true, p.fault)
		m.Fault = name
		return m, err
	}
	op, err := p.argument(oneOf(ops), false, p.op)
	if err != nil {
		return m, err
	}
	m.Op = "all"
	if op != "" {
		m.Op = op
	}
	return m, p.of(&m, timed || !isQuantile)
}

// of reads what narrows a metric: a shard, and where the clock is not told yet,
// service or response.
func (p *parser) of(m *Metric, timed bool) error {
	for p.accept("of") {
		w := p.take()
		switch {
		case w.text == "shard" && m.Shard == "":
			n := p.take()
			if v, err := strconv.Atoi(n.text); err != nil || v < 0 || strconv.Itoa(v) != n.text {
				return p.wrong(n, "a shard's number, as in of shard 1")
			}
			m.Shard = n.text
		case w.text == "shard":
			return p.invalid(w, w, "a shard was named before")
		case timed && (w.text == "service" || w.text == "response"):
			if _, isQuantile := m.quantile(); isQuantile {
				return p.invalid(w, w, "service or response was said before")
			}
			return p.wrong(w, "a shard, as in of shard 1", "shard")
		case w.text == "service" || w.text == "response":
			timed, m.Service = true, w.text == "service"
		case timed:
			return p.wrong(w, "a shard, as in of shard 1", "shard")
		default:
			return p.wrong(w, "service, response or a shard, as in of shard 1", "service", "response", "shard")
		}
	}
	return nil
}

// argument = "(" word ")".
func (p *parser) argument(expected string, required bool, read func() (string, error)) (string, error) {
	open := p.peek()
	if !p.accept("(") {
		if required {
			return "", p.wrong(open, "( and "+expected)
		}
		return "", nil
	}
	name, err := read()
	if err != nil {
		return "", err
	}
	if w := p.peek(); !p.accept(")") {
		return "", p.wrong(w, ")")
	}
	return name, nil
}

func (p *parser) op() (string, error) {
	w := p.take()
	if !slices.Contains(ops, w.text) {
		return "", p.wrong(w, oneOf(ops), ops...)
	}
	return w.text, nil
}

// fault = kind | [ "fault" ] id.
func (p *parser) fault() (string, error) {
	w := p.take()
	if w.text == "fault" && isNumbered(p.peek().text, 'f') {
		w = p.take()
	}
	if _, ok := plan.KindNamed(w.text); ok || isNumbered(w.text, 'f') {
		return w.text, nil
	}
	return "", p.wrong(w, "a fault's kind ("+strings.Join(kinds(), ", ")+") or id (f1)", kinds()...)
}

func kinds() []string {
	var names []string
	for _, k := range plan.Kinds {
		names = append(names, k.Name)
	}
	return names
}

// period = "during" ( fault | phase ) | "in" phase, or nothing. What may follow
// it is named in the error for a word that is neither.
func (p *parser) period(follow ...string) (Period, error) {
	w := p.peek()
	switch {
	case p.accept("during"):
		name := p.peek()
		phase := slices.Contains(phases, name.text)
		if phase && !(name.text == "fault" && p.next+1 < len(p.words) && isNumbered(p.words[p.next+1].text, 'f')) {
			p.take()
			return inPhase(name.text), nil
		}
		fault, err := p.fault()
		if err != nil {
			return Period{}, p.wrong(name, "a fault in force ("+strings.Join(kinds(), ", ")+", or f1) or a phase ("+strings.Join(phases, ", ")+")", append(kinds(), phases...)...)
		}
		return Period{DuringFault, fault}, nil
	case p.accept("in"):
		name := p.take()
		if !slices.Contains(phases, name.text) {
			return Period{}, p.wrong(name, "a phase ("+strings.Join(phases, ", ")+")", phases...)
		}
		return inPhase(name.text), nil
	case w.text == "" || slices.Contains(follow, w.text) || isCompare([]rune(w.text)[0]):
		return Period{}, nil
	}
	return Period{}, p.wrong(w, "during, in or "+oneOf(follow), append(follow, "during", "in")...)
}

// inPhase returns the period of a phase; that of the faults is the default.
func inPhase(name string) Period {
	if name == "fault" {
		return Period{}
	}
	return Period{InPhase, name}
}

// limit reads the rest of the sentence in one of the metric's forms.
func (p *parser) limit(m Metric) (Limit, error) {
	from := p.peek()
	if from.text == "" {
		return Limit{}, p.wrong(from, example(m))
	}
	last := from
	var words []string
	for w := p.peek(); w.text != ""; w = p.peek() {
		words = append(words, w.text)
		last = p.take()
	}
	text := strings.Join(words, " ")
	wrong := func(msg string) (Limit, error) { return Limit{}, p.invalid(from, last, msg) }
	for _, f := range m.forms() {
		l, err := parseLimit(f, text)
		if err == nil {
			return l, nil
		}
		if len(m.forms()) == 1 {
			return wrong(fmt.Sprintf("%v; expected %s", err, example(m)))
		}
	}
	switch {
	case strings.HasSuffix(text, "baseline"):
		if _, err := quantity.ParseRatio(text); err != nil {
			return wrong(err.Error())
		}
		return wrong(fmt.Sprintf("%s is not compared with the baseline; expected %s", m.Name, example(m)))
	case len(words) == 1 && (strings.HasSuffix(text, "%") || strings.HasSuffix(text, "x")):
		if slices.Contains(m.forms(), Ratio) {
			return wrong(fmt.Sprintf("%s of what? write %s", text, ofBaseline(text)))
		}
	}
	if slices.Contains(m.forms(), Time) {
		if _, err := quantity.ParseDuration(text); err != nil {
			return wrong(err.Error() + "; expected " + example(m))
		}
	}
	return wrong(fmt.Sprintf("%q is no limit of %s; expected %s", text, m.Name, example(m)))
}

func example(m Metric) string {
	switch m.Name {
	case "throughput":
		return "a share of the baseline or a rate, as in 80% of baseline or 500/s"
	case "errors", "unknown", "fails":
		return "a count or a share, as in 0 or 1%"
	case "leader_changes":
		return "a count, as in 0"
	case "time_to_recover":
		return "a duration, as in 5s"
	}
	return "a duration or a multiple of the baseline, as in 20ms or 3x baseline"
}

func parseLimit(f Form, text string) (l Limit, err error) {
	l.Form = f
	switch f {
	case Time:
		l.Time, err = quantity.ParseDuration(text)
	case Ratio:
		l.Ratio, err = quantity.ParseRatio(text)
	case Percent:
		l.Value, err = quantity.ParsePercent(text)
	case Count:
		var n int64
		n, err = quantity.ParseCount(text)
		l.Value = float64(n)
		if err == nil && n > 1<<53 {
			err = fmt.Errorf("%s is too large", text)
		}
	case Rate:
		var r quantity.Rate
		r, err = quantity.ParseRate(text)
		l.Value = r.PerS
		if err == nil && r.OfMax != 0 {
			err = fmt.Errorf("%s: the maximum is no limit", text)
		}
	}
	return l, err
}

// oneOf joins words as "a, b or c".
func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// ofBaseline completes "3x" or "80%".
func ofBaseline(text string) string {
	if strings.HasSuffix(text, "x") {
		return text + " baseline"
	}
	return text + " of baseline"
}
