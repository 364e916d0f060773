package faults

var serverRows = []row{}
