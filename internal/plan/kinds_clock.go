package plan

// clockKinds are the faults of clocks.
var clockKinds = []Kind{}
