// Command notices collects what the licences of the linked modules ask to be
// handed on with a binary: the copyright notices, licence texts and NOTICE files
// of Go itself and of every module that has a package in one of the programs.
//
//	notices PACKAGE...            write them as one text, always the same for the same modules
//	notices -modules PACKAGE...   list the modules only
//
// The Debian package installs the text beside its copyright file. What is linked
// in is asked of the go command, so a new dependency can't be forgotten there;
// a test here says when debian/copyright does not name one.
package main
