#!/usr/bin/perl
# A circular wait that forms every time: ring.pl COUNT FOLDER
#
# COUNT processes lock a file each, wait at a barrier until all have done so, then ask for the file of the next one. The
# kernel does not find circular waits of flock(2); an alarm in the first process ends this one.
use strict;
use warnings;
use Fcntl qw(:flock);

my ($count, $folder) = @ARGV;
my $alarm_after_s = 1;

pipe(my $arrived, my $arrive) or die "pipe: $!";
pipe(my $closed,  my $open)   or die "pipe: $!";

sub lock_file {
    my ($number) = @_;
    open(my $file, '>>', "$folder/ring-$number.lock") or die "ring-$number.lock: $!";
    return $file;
}

sub take_part {
    my ($number) = @_;
    close $open;
    my $mine = lock_file($number);
    flock($mine, LOCK_EX) or die "flock: $!";
    syswrite($arrive, '.');
    sysread($closed, my $nothing, 1);    # comes back when the barrier opens
    my $next = lock_file(($number + 1) % $count);
    if ($number == 0) {
        $SIG{ALRM} = sub { };
        alarm $alarm_after_s;
    }
    # Without the second lock it gives up the first, as a program with a time-out does.
    flock($next, LOCK_EX);
    return;
}

my @children;
for my $number (0 .. $count - 1) {
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        take_part($number);
        exit 0;
    }
    push @children, $pid;
}
for (1 .. $count) { sysread($arrived, my $one, 1) or die 'a process ended too early' }
close $open;    # the barrier opens
waitpid $_, 0 for @children;
