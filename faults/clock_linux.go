package faults

var clockRows = []row{}
