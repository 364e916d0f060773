// Package dm makes block devices out of files and changes what they do: loop
// devices, and on top of them the targets of the kernel's device mapper
// (Documentation/admin-guide/device-mapper), by its ioctls.
package dm
