package fuse

import gofuse "github.com/hanwen/go-fuse/v2/fuse"

// No file here has extended attributes. Programs that copy them ask for the list, and
// an empty one is nothing to warn of.

// ListXAttr answers an empty list.
func (fs *FS) ListXAttr(<-chan struct{}, *gofuse.InHeader, []byte) (uint32, gofuse.Status) {
	return 0, gofuse.OK
}

// GetXAttr has the kernel answer EOPNOTSUPP by itself, from the first time on. Otherwise
// it asked for security.capability at each open with O_TRUNC, one request more for an
// overwrite, and four times for each line of ls -l.
func (fs *FS) GetXAttr(<-chan struct{}, *gofuse.InHeader, string, []byte) (uint32, gofuse.Status) {
	return 0, gofuse.ENOSYS
}

// SetXAttr is not supported.
func (fs *FS) SetXAttr(<-chan struct{}, *gofuse.SetXAttrIn, string, []byte) gofuse.Status {
	return statusENOTSUPP
}

// RemoveXAttr answers that there is no such attribute.
func (fs *FS) RemoveXAttr(<-chan struct{}, *gofuse.InHeader, string) gofuse.Status {
	return gofuse.ENOATTR
}
