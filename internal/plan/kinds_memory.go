package plan

// memoryKinds are the faults of memory.
var memoryKinds = []Kind{}
