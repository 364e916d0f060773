package plan

// neighbourKinds are the faults of tenants beside the node.
var neighbourKinds = []Kind{}
