/* gdb_registers.c: the target description (Debugging with GDB, appendix G). */
#include "vmm/gdb_registers.h"

#define REG(name, bits, type)	"<reg name=\"" name "\" bitsize=\"" #bits "\" type=\"" type "\"/>"
#define GENERAL(name)	REG(name, 64, "int64")
#define SEGMENT(name)	REG(name, 32, "int32")
#define FLOAT(n)	REG("st" #n, 80, "i387_ext")
#define CONTROL(name)	"<reg name=\"" name "\" bitsize=\"32\" type=\"int\" group=\"float\"/>"
#define VECTOR(n)	REG("xmm" #n, 128, "vec128")
#define SYSTEM(name)	"<reg name=\"" name "\" bitsize=\"64\" type=\"uint64\" group=\"system\"/>"
#define BIT(name, n)	"<field name=\"" name "\" start=\"" #n "\" end=\"" #n "\"/>"

const char gdb_target_xml[] =
	"<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
	"<architecture>i386:x86-64</architecture>"
	"<feature name=\"org.gnu.gdb.i386.core\">"
	"<flags id=\"eflags_bits\" size=\"4\">" BIT("CF", 0) BIT("", 1) BIT("PF", 2) BIT("AF", 4)
	BIT("ZF", 6) BIT("SF", 7) BIT("TF", 8) BIT("IF", 9) BIT("DF", 10) BIT("OF", 11)
	BIT("NT", 14) BIT("RF", 16) BIT("VM", 17) BIT("AC", 18) BIT("VIF", 19) BIT("VIP", 20)
	BIT("ID", 21) "</flags>"
	GENERAL("rax") GENERAL("rbx") GENERAL("rcx") GENERAL("rdx") GENERAL("rsi") GENERAL("rdi")
	REG("rbp", 64, "data_ptr") REG("rsp", 64, "data_ptr")
	GENERAL("r8") GENERAL("r9") GENERAL("r10") GENERAL("r11") GENERAL("r12") GENERAL("r13")
	GENERAL("r14") GENERAL("r15") REG("rip", 64, "code_ptr") REG("eflags", 32, "eflags_bits")
	SEGMENT("cs") SEGMENT("ss") SEGMENT("ds") SEGMENT("es") SEGMENT("fs") SEGMENT("gs")
	FLOAT(0) FLOAT(1) FLOAT(2) FLOAT(3) FLOAT(4) FLOAT(5) FLOAT(6) FLOAT(7)
	CONTROL("fctrl") CONTROL("fstat") CONTROL("ftag") CONTROL("fiseg") CONTROL("fioff")
	CONTROL("foseg") CONTROL("fooff") CONTROL("fop") "</feature>"
	"<feature name=\"org.gnu.gdb.i386.sse\">"
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
	"<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
	"<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
	"<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
	"<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
	"<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
	"<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>"
	VECTOR(0) VECTOR(1) VECTOR(2) VECTOR(3) VECTOR(4) VECTOR(5) VECTOR(6) VECTOR(7)
	VECTOR(8) VECTOR(9) VECTOR(10) VECTOR(11) VECTOR(12) VECTOR(13) VECTOR(14) VECTOR(15)
	"<reg name=\"mxcsr\" bitsize=\"32\" type=\"int\" group=\"vector\"/></feature>"
	"<feature name=\"org.gnu.gdb.i386.segments\">"
	REG("fs_base", 64, "int") REG("gs_base", 64, "int") "</feature>"
	"<feature name=\"vmm.x86.system\">" SYSTEM("k_gs_base") SYSTEM("cr0") SYSTEM("cr2")
	SYSTEM("cr3") SYSTEM("cr4") SYSTEM("cr8") SYSTEM("efer") "</feature></target>";

/* Runs of registers of one size, in GDB's order. */
static const struct { unsigned nr, len; } runs[] = {
	{ 17, 8 }, { 7, 4 }, { 8, 10 }, { 8, 4 }, { 16, 16 }, { 1, 4 }, { 2, 8 }, { 7, 8 },
};

struct gdb_register gdb_register(u64 nr)
{
	size_t offset = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(runs); i++) {
		if (nr < runs[i].nr)
			return (struct gdb_register){ offset + nr * runs[i].len, runs[i].len };
		nr -= runs[i].nr;
		offset += (size_t)runs[i].nr * runs[i].len;
	}
	return (struct gdb_register){ 0 };
}
