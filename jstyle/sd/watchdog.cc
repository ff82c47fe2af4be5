// A thread that ends the process some seconds after a signal asked it to, if it is still there.
// It needs no interpreter lock: Jittor holds that through its computations.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern "C" {

struct Part {
    int ready;  // set after the path
    char path[4096];
};

struct Part watchdog_parts[64];
char watchdog_lines[65][256];  // by signal number; empty for those that do not end the process,
                               // a mere end of line where nothing is to be told
int watchdog_spoken;
int watchdog_bar;  // whether a bar's line is begun on stderr

}

static int pipe_end;
static double patience;

static void pause_for(double seconds) {
    struct timespec rest = {(time_t)seconds, (long)((seconds - (long)seconds) * 1e9)};
    nanosleep(&rest, nullptr);
}

static int hushing;
static volatile int kept = -1;

// Does it unless somebody has begun to; waits for nobody, so that a signal's handler may call it.
static void hush() {
    if (__sync_lock_test_and_set(&hushing, 1)) return;
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int out = nowhere < 0 ? 2 : fcntl(2, F_DUPFD_CLOEXEC, 3);
    if (out > 2) dup2(nowhere, 2);
    if (nowhere >= 0) close(nowhere);
    kept = out < 0 ? 2 : out;
}

// Sends to nowhere what this process writes to stderr from now on, such as what compilers that were
// ended in the middle have said. Returns a descriptor of the true stderr, for the last line.
extern "C" int watchdog_hush() {
    hush();
    while (kept < 0) pause_for(0.0001);
    return kept;
}

static struct sigaction python[65];  // its handlers, by number

static void heard(int number) {
    int error = errno;
    hush();  // before anything that the same signal has ended is told of
    errno = error;
    python[number].sa_handler(number);
}

// Stands before Python's handlers of the signals that end the process; again whenever they are set.
extern "C" void watchdog_listen() {
    for (int number = 1; number < 65; number++) {
        struct sigaction now;
        if (!watchdog_lines[number][0] || sigaction(number, nullptr, &now)) continue;
        if (now.sa_flags & SA_SIGINFO || now.sa_handler == heard || now.sa_handler == SIG_IGN
            || now.sa_handler == SIG_DFL)
            continue;
        python[number] = now;
        now.sa_handler = heard;
        sigaction(number, &now, nullptr);
    }
}

// From now on no thread of this process can start another process, such as Jittor's next compiler;
// where the system has no such filter they still can.
extern "C" void watchdog_start_no_more() {
    const unsigned numbers[] = {
        SYS_clone,
#ifdef SYS_clone3
        SYS_clone3,
#endif
#ifdef SYS_fork
        SYS_fork, SYS_vfork,
#endif
    };
    const int count = sizeof numbers / sizeof *numbers;
    struct sock_filter code[count + 3] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    for (int i = 0; i < count; i++) {
        struct sock_filter test = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[i],
                                           (unsigned char)(count - i), 0);
        code[1 + i] = test;
    }
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_filter refuse = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN);
    code[count + 1] = allow;
    code[count + 2] = refuse;
    struct sock_fprog program = {(unsigned short)(count + 3), code};
    if (!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

static int remove_one(const char* path, const struct stat*, int, struct FTW*) {
    remove(path);
    return 0;
}

struct Process {
    int pid, parent, below;  // whether it is below this process
};

static Process processes[1 << 14];

static int read_processes() {
    DIR* folder = opendir("/proc");
    if (!folder) return 0;
    int count = 0;
    char name[300], line[512], state;
    while (struct dirent* entry = readdir(folder)) {
        Process& found = processes[count];
        found = {atoi(entry->d_name), 0, 0};
        if (found.pid <= 0 || count + 1 == sizeof processes / sizeof *processes) continue;
        snprintf(name, sizeof name, "/proc/%d/stat", found.pid);
        int file = open(name, O_RDONLY | O_CLOEXEC);
        if (file < 0) continue;
        ssize_t length = read(file, line, sizeof line - 1);
        close(file);
        line[length > 0 ? length : 0] = 0;
        const char* rest = strrchr(line, ')');
        count += rest && sscanf(rest + 1, " %c %d", &state, &found.parent) == 2 && state != 'Z';
    }
    closedir(folder);
    return count;
}

// Signals all processes below this one at once: those of a chain that were ended one after the
// other would each take their time to go.
static int signal_descendants(int number) {
    int count = read_processes(), found = 0;
    for (int before = -1; before != found;) {
        before = found;
        for (int i = 0; i < count; i++) {
            Process& one = processes[i];
            for (int j = 0; !one.below && j < count; j++)
                if (one.parent == getpid()
                    || (processes[j].below && processes[j].pid == one.parent)) {
                    one.below = 1;
                    found++;
                }
        }
    }
    for (int i = 0; i < count; i++)
        if (processes[i].below) kill(processes[i].pid, number);
    return found;
}

static void* watch(void*) {
    unsigned char number;
    while (read(pipe_end, &number, 1) == 1)
        if (number < 65 && watchdog_lines[number][0]) break;
    int target = watchdog_hush();
    pause_for(patience);
    signal(SIGCHLD, SIG_DFL);
    const char* line = watchdog_lines[number];
    if (line[1] && !__sync_lock_test_and_set(&watchdog_spoken, 1)) {
        ssize_t written = watchdog_bar ? write(target, "\n", 1) : 0;
        written += write(target, line, strlen(line));
        (void)written;
    }
    watchdog_start_no_more();
    for (int turn = 0; turn < 40 && signal_descendants(turn < 5 ? SIGTERM : SIGKILL); turn++)
        pause_for(0.01);
    for (struct Part& part : watchdog_parts)
        if (part.ready) nftw(part.path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    _exit(128 + number);
}

extern "C" int watchdog_start(int descriptor, double seconds) {
    pipe_end = descriptor;
    patience = seconds;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the main thread
    pthread_t thread;
    int failed = pthread_create(&thread, nullptr, watch, nullptr);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return failed;
}

static char crash_line[256];
static pid_t crash_owner;

static void crashed(int number) {
    if (getpid() != crash_owner) {  // a compiling worker: its parent's files are not its own
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    if (!__sync_lock_test_and_set(&watchdog_spoken, 1)) {
        ssize_t written = watchdog_bar ? write(2, "\n", 1) : 0;
        written += write(2, crash_line, strlen(crash_line));
        (void)written;
    }
    for (struct Part& part : watchdog_parts)
        if (part.ready) nftw(part.path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    _exit(1);
}

// When the process crashes, this line is told, nothing half-made stays, and it ends. Jittor's own
// handler calls exit() in whichever thread crashed, and waits there for ever for another thread.
// Jittor does not look either whether it was given the memory that it asked for.
extern "C" void watchdog_tell_crash(const char* line) {
    strncpy(crash_line, line, sizeof crash_line - 1);
    crash_owner = getpid();
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = crashed;
    const int numbers[] = {SIGSEGV, SIGBUS, SIGABRT};
    for (int number : numbers) sigaction(number, &action, nullptr);
}

extern "C" int watchdog_speak() { return !__sync_lock_test_and_set(&watchdog_spoken, 1); }
