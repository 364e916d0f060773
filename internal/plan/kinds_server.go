package plan

// serverKinds are the faults of what a target does inside: its locks and codecs.
var serverKinds = []Kind{}
