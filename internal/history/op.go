// Package history is the record of what clients asked and what they were told.
package history

// An Outcome says what a client knows about its operation.
type Outcome string

// Outcomes, as Jepsen's ok, fail and info.
const (
	OK      Outcome = "ok"
	Fail    Outcome = "fail"    // certainly did not happen
	Unknown Outcome = "unknown" // may have happened, or may happen later
)

// A Kind is what an operation does to its key.
type Kind string

// Kinds of operation.
const (
	Get    Kind = "get"
	Put    Kind = "put"
	CAS    Kind = "cas"    // Expect → Value; completes also when it does not swap
	Append Kind = "append" // concatenates Value to the present value (absent = empty)
	Delete Kind = "delete" // writes the unique tombstone Value, or removes the key if Value is nil
)

// An Op is one operation of one client. Times are ns since the run's zero.
//
// Values are unique over a key's whole life, so that every read names its
// write. A client whose operation is unknown goes on under a new number.
type Op struct {
	ID      int64
	Client  int
	Key     string
	Kind    Kind
	Value   *string // put, append, cas (new value), delete (tombstone)
	Expect  *string // cas; nil means absent
	Result  *string // ok get and ok cas: the value found; nil means absent
	Swapped bool    // ok cas
	Blind   bool    // ok cas that did not swap and did not say what it found, only that it was not Expect; other tools' histories
	Outcome Outcome
	Due     int64  // when it should have been sent; response time counts from here
	Call    int64  // when it was sent; service time and linearizability count from here
	Return  int64  // when the answer came, or when the client gave up
	Node    string // that answered, or was asked last
	Phase   string // "final" for the reads after healing; else empty
	Error   string // why it is not ok; for people only
}

// A Request is what a client is asked to do.
type Request struct {
	Kind   Kind
	Key    string
	Value  string // as put on the wire
	Expect string
}

// A Reply is what a client learned. Found is nil for an absent key.
type Reply struct {
	Outcome Outcome
	Found   *string
	Swapped bool
	Node    string
	Err     error // set when Outcome is not OK; why
}
