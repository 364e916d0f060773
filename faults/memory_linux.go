package faults

var memoryRows = []row{}
