/* pcap_test.c: what a card's traffic is written to: files that cannot be, and a disk that is full. */
#include "devices/net/pcap.h"
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include "devices/net/net.h"
#include "tests/lib/test.h"

enum { HEAD = 24, RECORD = 16, LEN = 60 };

static char dir[] = "/tmp/vmm-pcap-test-XXXXXX", path[64];
static struct pcap *pcap;
static struct err err;

static int setup(void **state)
{
	(void)state;
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/dump", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pcap_close(pcap);
	pcap = NULL;
	unlink(path);
	return rmdir(dir);
}

static off_t size(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* So many bytes fit into a file from now on. */
static struct rlimit disk(rlim_t room)
{
	struct rlimit old, new;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	new = (struct rlimit){ room, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &new), 0);
	return old;
}

static void give_back(struct rlimit old)
{
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
}

static void refuse(const char *says)
{
	assert_true(pcap_open(&pcap, path, &err) < 0);
	assert_null(pcap);
	assert_says(err.msg, "dump ");
	assert_says(err.msg, path);
	assert_says(err.msg, says);
}

static void frame(u8 byte, size_t len)
{
	static u8 data[2 * NET_FRAME_MAX];
	struct iovec iov[2] = { { data, 20 }, { data + 20, sizeof(data) - 20 } };

	memset(data, 0, NET_HDR_LEN);
	memset(data + NET_HDR_LEN, byte, sizeof(data) - NET_HDR_LEN);
	pcap_frame(pcap, iov, 2, NET_HDR_LEN + len);
}

static void test_refused(void **state)
{
	struct rlimit old;
	int fd;

	(void)state;
	assert_int_equal(mkdir(path, 0700), 0);
	refuse("Is a directory");
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	refuse("No such device or address");		/* nobody reads there, and it does not wait */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	refuse("not a regular file");
	close(fd);
	unlink(path);
	old = disk(HEAD - 1);
	refuse("No space left on device");
	give_back(old);
	old = disk(0);
	refuse("File too large");
	give_back(old);
	assert_int_equal(access(path, F_OK), -1);	/* what is not to be is not begun... */
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	old = disk(0);
	refuse("File too large");
	give_back(old);
	unlink(path);					/* ...what was there is not removed */
	snprintf(path, sizeof(path), "%s/no/dump", dir);
	refuse("No such file or directory");
	pcap_close(NULL);
}

static void test_frames(void **state)
{
	u8 got[HEAD + 2 * (RECORD + LEN)] = { 0 };
	u32 len[2];
	int fd;

	(void)state;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, got, sizeof(got)), sizeof(got));	/* what was there is not kept */
	close(fd);
	assert_int_equal(pcap_open(&pcap, path, &err), 0);
	assert_int_equal(size(), HEAD);
	frame(1, LEN);
	frame(9, NET_FRAME_MAX);	/* longer than any is: not here */
	frame(2, LEN);
	assert_int_equal(size(), sizeof(got));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, got, sizeof(got)), sizeof(got));
	close(fd);
	for (int i = 0; i < 2; i++) {
		u8 *r = got + HEAD + i * (RECORD + LEN);

		memcpy(len, r + 8, sizeof(len));
		assert_true(len[0] == LEN && len[1] == LEN);
		for (int k = 0; k < LEN; k++)
			assert_int_equal(r[RECORD + k], 1 + i);
	}
}

/* It ends with the last whole frame, for good. */
static void test_full(void **state)
{
	static const rlim_t room[] = { HEAD + 2 * (RECORD + LEN) - 1, HEAD + RECORD + LEN };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(room); i++) {
		struct rlimit old;

		assert_int_equal(pcap_open(&pcap, path, &err), 0);
		assert_int_equal(size(), HEAD);
		old = disk(room[i]);
		frame(1, LEN);
		frame(2, LEN);
		assert_int_equal(size(), HEAD + RECORD + LEN);
		give_back(old);
		frame(3, LEN);
		assert_int_equal(size(), HEAD + RECORD + LEN);
		pcap_close(pcap);
		pcap = NULL;
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = { T(test_refused), T(test_frames), T(test_full) };

	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
