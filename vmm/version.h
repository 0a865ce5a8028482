/* version.h: the program's version. */
#pragma once

#define VMM_VERSION	"0.1"
